-- Waking idle workers: one channel, an empty payload, and a latch so that a thousand inserts ring once.
--
-- The latch is a sequence: 1 means "somebody idle has not been rung since it last looked". A worker arms it, looks for work,
-- then sleeps; the first commit that makes work or room clears it and notifies. Whatever a user may do in a long transaction rings
-- through a deferred trigger: cleared early, the latch would keep others from ringing until that transaction ends. A notice is only a
-- hint: in the small window between gate and commit it can be missed, so workers look again a moment later, and poll.

create or replace function leasehold.ring() returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if pg_sequence_last_value('leasehold.bell'::regclass) = 1 then
    perform setval('leasehold.bell', 0);
    perform pg_notify('leasehold', '');
  end if;
end $$;

create or replace function leasehold.listen_again() returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform setval('leasehold.bell', 1);
end $$;

-- The condition of the deferred triggers. It is evaluated at once, row by row, so only the first row of a transaction is queued
-- for the commit. A rolled back savepoint takes the flag and the queued trigger with it.
create or replace function leasehold.first_of_transaction() returns boolean
language plpgsql volatile
as $$
begin
  if current_setting('leasehold.rung', true) = 'yes' then
    return false;
  end if;
  perform set_config('leasehold.rung', 'yes', true);
  return true;
end $$;

create or replace function leasehold.ring_at_commit() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if pg_sequence_last_value('leasehold.bell'::regclass) = 1 then       -- ring(), in line: this is in the way of every insert
    perform setval('leasehold.bell', 0);
    perform pg_notify('leasehold', '');
  end if;
  return null;
end $$;
