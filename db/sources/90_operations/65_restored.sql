-- After a restore: this database has forgotten what happened since its backup, and others have not.

create or replace function fleet.step_over_ids()
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence record;
  v_last bigint;
  v_count integer := 0;
begin
  for v_sequence in
    select s.oid::regclass as name
    from pg_class as s
    join pg_sequence as q on q.seqrelid = s.oid and q.seqtypid = 'bigint'::regtype
    join pg_namespace as n on n.oid = s.relnamespace
    where n.nspname in ('public', 'fleet', 'telemetry')
  loop
    execute format('select x.last_value from %s as x', v_sequence.name) into v_last;
    -- More than any fleet hands out between two backups, and a small part of what a numbered database has.
    perform setval(v_sequence.name, v_last + 4294967296, true);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.step_over_ids() is 'Let every identity leave out the next 2^32 numbers. Answers how many identities there are.';
revoke all on function fleet.step_over_ids() from public, anon, authenticated, service_role;

create or replace function fleet.after_restore(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequences integer := fleet.step_over_ids();
  v_interrupted bigint;
begin
  -- Agents remember what they did, and are asked as ever. An MDM may have been told since, and nobody can say.
  update public.device_commands as c
  set status = 'failed', reason = 'interrupted',
      error_message = 'the database was restored, and the MDM may have been told of it since the backup'
  where c.channel = 'mdm'
    and c.status in ('pending', 'running')
    and c.not_before <= p_now
    and not exists (select 1 from public.command_types as t where t.name = c.command_type and t.owner_id is null and t.rerun_safe);
  get diagnostics v_interrupted = row_count;
  -- Default privileges of the project have opened what the restore made: the next migrate closes all of it again.
  if to_regclass('fleet_ledger.sources') is not null then
    execute 'update fleet_ledger.sources set digest = ''restored''';
  end if;
  return jsonb_build_object('identities', v_sequences, 'interrupted', v_interrupted);
end;
$$;

comment on function fleet.after_restore(timestamptz) is
  'To be called once after a restore from a backup, before anything ticks: numbers that were handed out since the backup are not given to others, '
  'what an MDM may have been told to do since, and is not safe to repeat, ends as interrupted, and the next migrate applies all rights anew. '
  '{identities, interrupted}.';
revoke all on function fleet.after_restore(timestamptz) from public, anon, authenticated, service_role;
