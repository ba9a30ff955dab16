-- Generated from db/migrations/20261129200201_words.sql by pgfleet db bundle; edit that file instead.
-- One word for one thing. Functions and triggers get their new names before the sources bring their new bodies, so that no trigger
-- is missing in between and none is left over.
-- depends: 20261129200100_webhook_handlers

do $$
declare
  v_old text;
  v_new text;
begin
  for v_old, v_new in
    values
      ('note_activity', 'log_activity'),
      ('note_failed_pushes', 'mark_failed_pushes'),
      ('note_profile_state', 'store_profile_state'),
      ('note_profile_accepted', 'record_profile_accepted'),
      ('note_mdm_accepted', 'record_mdm_accepted'),
      ('note_sighted_profiles', 'store_sighted_profiles'),
      ('note_places', 'store_device_places'),
      ('note_positions', 'store_positions'),
      ('note_location_events', 'record_location_events'),
      ('note_silence', 'record_silence'),
      ('note_lost_positions', 'record_lost_positions'),
      ('tg_note_progress', 'tg_count_progress'),
      ('tg_note_failed_runs', 'tg_fail_pushes_of_runs'),
      ('tg_note_cancelled_pushes', 'tg_fail_cancelled_pushes'),
      ('settle_attempt', 'end_attempt'),
      ('act_on_places', 'act_on_location_events'),
      ('tend_places', 'tend_locations'),
      ('policies_for_events', 'location_policies_for'),
      ('schedule_for_events', 'schedule_for_location_events'),
      ('schedule_name_for_events', 'name_for_location_events'),
      ('act_for_policy', 'act_for_location_policy'),
      ('move_removal', 'reschedule_removal'),
      ('ask_for_profile', 'request_upload'),
      ('ask_for_reread', 'request_reread')
  loop
    if to_regproc('fleet.' || v_old) is not null and to_regproc('fleet.' || v_new) is null then
      execute format('alter function fleet.%I rename to %I', v_old, v_new);
    end if;
  end loop;
end;
$$;

do $$
declare
  v_table regclass;
  v_old text;
  v_new text;
begin
  for v_table, v_old, v_new in
    select t.tgrelid, t.tgname, n.new_name
    from (
      values
        ('device_commands_05_note_progress', 'device_commands_05_count_progress'),
        ('device_commands_06_note_deleted', 'device_commands_06_count_deleted'),
        ('schedule_runs_80_note_failed_insert', 'schedule_runs_80_fail_pushes_insert'),
        ('schedule_runs_80_note_failed_update', 'schedule_runs_80_fail_pushes_update'),
        ('schedules_80_note_cancelled', 'schedules_80_fail_pushes')
    ) as n(old_name, new_name)
    join pg_trigger as t on t.tgname = n.old_name
  loop
    execute format('alter trigger %I on %s rename to %I', v_old, v_table, v_new);
  end loop;
end;
$$;

-- Only runs are settled: what waits for an effect to show is looked at.
alter table fleet.mdm_work drop constraint mdm_work_phase_is_known;
update fleet.mdm_work set phase = 'look' where phase = 'settle';
alter table fleet.mdm_work add constraint mdm_work_phase_is_known check (phase in ('send', 'look'));
drop index fleet.mdm_work_give_up_idx;
create index mdm_work_give_up_idx on fleet.mdm_work (give_up_at) where phase = 'look';
comment on column public.location_events.fix_at is 'Time of the fix that decided it.';

-- Only locations are places: these have a parameter of another name by now.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc as p where p.pronamespace = 'fleet'::regnamespace and 'p_place' = any (p.proargnames)
  loop
    execute format('drop function %s', v_function);
  end loop;
end;
$$;
