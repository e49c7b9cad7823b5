-- Two views for people: what was used, by whom, day by day, and how the budgets stand. Both see what the caller may see.

-- Sums of sums are exact: add these up by whatever you like. Days and months are of UTC; cost_usd is null where nothing had a price, and
-- session where its jobs are gone.
drop view if exists leasehold.usage_totals;
create view leasehold.usage_totals with (security_invoker = true) as
select (u.at at time zone 'UTC')::date as day,
       date_trunc('month', u.at at time zone 'UTC')::date as month,
       u.tenant, u.agent, u.account, u.session, u.provider, u.model,
       count(distinct u.run_id) as runs,
       sum(u.input_tokens) as input_tokens,
       sum(u.output_tokens) as output_tokens,
       sum(u.cached_tokens) as cached_tokens,
       sum(u.cost_usd) as cost_usd,
       count(*) filter (where u.cost_usd is null) as unpriced
  from leasehold.usage u
 group by 1, 2, u.tenant, u.agent, u.account, u.session, u.provider, u.model
union all
select d.day, date_trunc('month', d.day::timestamp)::date, d.tenant, d.agent, d.account, null, d.provider, d.model,
       sum(d.runs)::bigint, sum(d.input_tokens), sum(d.output_tokens), sum(d.cached_tokens), sum(d.cost_usd), sum(d.unpriced)::bigint
  from leasehold.usage_days d
 group by d.day, d.tenant, d.agent, d.account, d.provider, d.model;

drop view if exists leasehold.budget_status;
create view leasehold.budget_status with (security_invoker = true) as
select b.scope, b.name, b.period, b.amount_usd,
       now_.spent_usd,
       now_.unpriced,
       greatest(b.amount_usd - now_.spent_usd, 0) as left_usd,
       now_.spent_usd >= b.amount_usd or (b.on_unpriced = 'hold' and now_.unpriced > 0) as used_up,
       leasehold.period_end(b.period, leasehold.period_start(b.period, leasehold.clock())) as begins_anew_at,
       b.on_unpriced, b.refuse
  from leasehold.budgets b
 cross join lateral (select b.since >= leasehold.period_start(b.period, leasehold.clock()) as counts offset 0) period
 cross join lateral (select case when period.counts then b.spent_usd else 0 end as spent_usd,
                            case when period.counts then b.unpriced else 0 end as unpriced offset 0) now_;
