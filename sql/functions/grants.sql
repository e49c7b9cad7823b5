-- Who may do what. Applied last, whenever anything was applied: new functions and columns are closed until they are named here.

revoke all on all tables in schema leasehold
  from public, leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
revoke all on all functions in schema leasehold
  from public, leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
grant usage on schema leasehold to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;

-- everybody reads what happened; row-level security keeps tenants apart
grant select on leasehold.jobs, leasehold.runs, leasehold.events, leasehold.output, leasehold.wakeups, leasehold.reasons, leasehold.transitions,
                leasehold.queue_stats, leasehold.job_overview
   to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
grant select (name, adapter, status, status_reason, max_running, wake_on_schedule, wake_on_demand, created_at, updated_at) on leasehold.agents
   to leasehold_producer, leasehold_reader;
grant execute on function leasehold.clock(), leasehold.my_tenants(), leasehold.my_default_tenant(), leasehold.cursor_epoch(),
                          leasehold.changes(text, int), leasehold.why(bigint)
   to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;

-- producers: every column of jobs but id, so that a protected one gets our message and not "permission denied for table jobs"
do $$
begin
  execute (
    select format('grant insert (%s) on leasehold.jobs to leasehold_producer, leasehold_admin',
                  string_agg(quote_ident(a.attname), ', ' order by a.attnum))
      from pg_attribute a
     where a.attrelid = 'leasehold.jobs'::regclass
       and a.attnum > 0
       and not a.attisdropped
       and a.attname <> 'id');
end $$;
grant execute on function
  leasehold.enqueue(text, text, text, text, text, text, text, jsonb, int, timestamptz, text, text, int, jsonb,
                    text, jsonb, text, text, text, numeric, text, boolean),
  leasehold.wake(text, text, text, jsonb, text, text, text, text, text, jsonb, text, text, int, text, text, text, text, text, text,
                 timestamptz, jsonb, int, text, text, numeric),
  leasehold.cancel(bigint, text),
  leasehold.cancel_agent(text, text),
  leasehold.retry(bigint)
  to leasehold_producer, leasehold_admin;

-- schedules: what users write of them
grant select, delete on leasehold.schedules to leasehold_producer, leasehold_admin;
grant select on leasehold.schedules to leasehold_reader;
grant insert (tenant, name, agent, prompt, cron, every, timezone, starts_at, missed, missed_most, jitter, enabled, key,
              conflict_policy, queue, priority, thread, payload, context),
      update (tenant, name, agent, prompt, cron, every, timezone, starts_at, missed, missed_most, jitter, enabled, key,
              conflict_policy, queue, priority, thread, payload, context)
   on leasehold.schedules to leasehold_producer, leasehold_admin;

grant select on all tables in schema leasehold to leasehold_admin, leasehold_worker;
grant insert, update, delete on leasehold.agents, leasehold.tenants, leasehold.queues, leasehold.tenant_logins,
                              leasehold.hosts, leasehold.repositories to leasehold_admin;
grant execute on function
  leasehold.first_of_transaction(),
  leasehold.agent_env_mistake(jsonb),
  leasehold.agent_limits_mistake(jsonb),
  leasehold.pause_agent(text, text),
  leasehold.resume_agent(text),
  leasehold.limit_all(int),
  leasehold.hold(text, text, text, timestamptz, text, interval),
  leasehold.lift(text, text, text),
  leasehold.pause_queue(text, text),
  leasehold.pause_tenant(text, text),
  leasehold.pause_host(text, text),
  leasehold.pause_all(text),
  leasehold.resume_queue(text),
  leasehold.resume_tenant(text),
  leasehold.resume_host(text),
  leasehold.resume_all(),
  leasehold.after_restore()
  to leasehold_admin;

grant execute on function
  leasehold.ring(),
  leasehold.listen_again(),
  leasehold.register_worker(text, text, text, text, text, int, text[], interval),
  leasehold.adopt(bigint, uuid, bigint[], uuid[], interval),
  leasehold.claim(bigint, uuid, int),
  leasehold.read_runs(bigint, uuid, bigint[]),
  leasehold.renew(bigint, uuid, bigint[], interval),
  leasehold.start_run(bigint, uuid, bigint, uuid, jsonb),
  leasehold.stop_run(bigint, uuid, bigint, uuid, text),
  leasehold.suspect_run(bigint, uuid, bigint, uuid, text, jsonb),
  leasehold.report_unkillable(bigint, uuid, bigint, uuid, jsonb),
  leasehold.expire_queued(bigint, uuid),
  leasehold.trim_output(bigint[], uuid[], text[], bigint[], bigint[]),
  leasehold.save_checkpoints(bigint[], uuid[], jsonb[]),
  leasehold.read_output(bigint, uuid, text, bigint, bigint),
  leasehold.report_progress(bigint, uuid, text, text),
  leasehold.append_events(bigint[], uuid[], bigint[], text[], text[], text[], text[], jsonb[]),
  leasehold.append_output(bigint[], uuid[], text[], bigint[], bytea[]),
  leasehold.held_runs(bigint[]),
  leasehold.finish_run(bigint, uuid, bigint, uuid, text, text, text, int, int, jsonb, jsonb, jsonb),
  leasehold.read_late(bigint, uuid, bigint[], uuid[]),
  leasehold.append_late_output(bigint, uuid, bigint, uuid, text[], bigint[], bytea[]),
  leasehold.watch_workers(),
  leasehold.reap(bigint, uuid, bigint[], bigint[]),
  leasehold.next_due(bigint),
  leasehold.due_schedules(bigint, uuid, int),
  leasehold.fire_schedule(bigint, uuid, bigint, int, timestamptz, timestamptz[]),
  leasehold.fail_schedule(bigint, uuid, bigint, int, timestamptz, text),
  leasehold.deregister_worker(bigint, uuid)
  to leasehold_worker;

-- retention
grant update (keep, batch) on leasehold.retention to leasehold_admin;
grant execute on function
  leasehold.delete_job(bigint),
  leasehold.delete_old_jobs(double precision, int),
  leasehold.count_old_jobs(double precision)
  to leasehold_producer, leasehold_admin;
grant execute on function
  leasehold.sweep_retention(bigint, uuid, text),
  leasehold.take_removals(bigint, uuid, int),
  leasehold.end_removal(bigint, uuid, bigint, text),
  leasehold.find_orphans(bigint, uuid, bigint[], uuid[])
  to leasehold_worker;

-- usage, budgets, sessions
grant select on leasehold.usage, leasehold.usage_days, leasehold.usage_totals, leasehold.budgets, leasehold.budget_status, leasehold.sessions
   to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
grant execute on function leasehold.period_start(text, timestamptz), leasehold.period_end(text, timestamptz)
   to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
grant insert (scope, name, period, amount_usd, on_unpriced, refuse), update (amount_usd, on_unpriced, refuse), delete
   on leasehold.budgets to leasehold_admin;
grant execute on function
  leasehold.report_usage(bigint, uuid, bigint, uuid, bigint[], jsonb[]),
  leasehold.report_session(bigint, uuid, bigint, uuid, text),
  leasehold.report_storage(bigint, uuid, bigint, uuid, text, bigint, interval)
  to leasehold_worker;
grant execute on function
  leasehold.evict_session(text, text, text),
  leasehold.forget_session(text, text, text)
  to leasehold_producer, leasehold_admin;

-- threads
grant select on leasehold.threads, leasehold.read_cursors to leasehold_producer, leasehold_reader;
grant execute on function
  leasehold.active_summary(text, text),
  leasehold.mark_thread_read(text, text, bigint, text),
  leasehold.list_threads(text, text, int, text, text),
  leasehold.thread_changes(text, int),
  leasehold.cursor_parts(text, text),
  leasehold.page_size(int, int, int),
  leasehold.list_jobs(text, text, text, text, text, int, text, text),
  leasehold.list_events(bigint, bigint, int),
  leasehold.list_thread_events(text, int, text, text),
  leasehold.queue_summary(text),
  leasehold.queue_top(text, int)
  to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
grant execute on function leasehold.set_thread(text, text, text, text) to leasehold_producer, leasehold_admin;

-- turns, interactions
grant select on leasehold.turns, leasehold.interactions, leasehold.adapters, leasehold.answer_policies
   to leasehold_producer, leasehold_reader;
grant insert (agent, kind, tool, decision, message), update (agent, kind, tool, decision, message), delete on leasehold.answer_policies
   to leasehold_admin;
grant execute on function
  leasehold.steer(bigint, text, text, text),
  leasehold.prompt(bigint, text, text, text),
  leasehold.interrupt(bigint, text, text, text),
  leasehold.cancel_turn(bigint, text),
  leasehold.answer(bigint, text, text, jsonb)
  to leasehold_producer, leasehold_admin;
grant execute on function
  leasehold.read_inputs(bigint, uuid, bigint[], boolean),
  leasehold.take_inputs(bigint, uuid, bigint[], text[], bigint[]),
  leasehold.expire_interactions(bigint, uuid)
  to leasehold_worker;

-- messages, artifacts, changes
grant select on leasehold.messages, leasehold.thread_messages, leasehold.artifacts, leasehold.workspace_changes, leasehold.job_marks,
                leasehold.session_activity
   to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
grant execute on function
  leasehold.list_messages(bigint, bigint, int),
  leasehold.list_thread_messages(text, bigint, int, text),
  leasehold.message_changes(text, int, bigint, text),
  leasehold.list_session_events(bigint, bigint, int, int, boolean),
  leasehold.mark_job_read(bigint, text, int),
  leasehold.check_workspace_path(text)
  to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
grant execute on function
  leasehold.add_artifact(bigint, uuid, bigint, uuid, text, text, text, text, text),
  leasehold.record_changes(bigint, uuid, bigint, uuid, jsonb)
  to leasehold_worker;

-- workspaces
grant select on leasehold.workspaces to leasehold_producer, leasehold_reader;
grant execute on function leasehold.branch_mistake(text), leasehold.env_file_mistake(text), leasehold.repository_mistake(text)
   to leasehold_admin, leasehold_producer;
grant execute on function leasehold.prepare_mistake(jsonb) to leasehold_admin;
grant execute on function leasehold.remove_workspace(bigint) to leasehold_producer, leasehold_admin;
grant execute on function
  leasehold.take_workspace(bigint, uuid, bigint, uuid),
  leasehold.report_workspace(bigint, uuid, bigint, uuid, jsonb, jsonb, text)
  to leasehold_worker;

-- sessions: named, reset, listed
grant select on leasehold.session_overview to leasehold_admin, leasehold_worker, leasehold_producer, leasehold_reader;
grant execute on function leasehold.reset_session(text, text, text) to leasehold_producer, leasehold_admin;
grant execute on function leasehold.agent_config_mistake(jsonb), leasehold.is_name_below(text) to leasehold_admin;
