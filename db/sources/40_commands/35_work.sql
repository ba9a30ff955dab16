-- Devices that do much: many results in one call, and the next commands with the answer.

create or replace function fleet.finish_each(p_device_id bigint, p_results jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done integer[];
  v_others jsonb := '{}';
  v_one record;
begin
  if jsonb_typeof(p_results) is distinct from 'array' then
    raise exception 'results must be a list, not %', coalesce(jsonb_typeof(p_results), 'null')
      using errcode = 'PT422', detail = 'results_invalid',
            hint = 'Example: [{"command_id": 7, "attempt": 1, "status": "completed", "result": {}}]';
  end if;
  if jsonb_array_length(p_results) > fleet.limit_value('results') then
    perform fleet.raise_problems('the list of results', 'results_invalid', array_agg(q))
    from fleet.list_problem('results', 'results', p_results) as q;
  end if;

  v_done := fleet.complete_commands(p_device_id, p_results, p_now);
  if cardinality(v_done) < jsonb_array_length(p_results) then
    for v_one in
      select e.n, fleet.try_bigint(e.item ->> 'command_id') as id, e.item ->> 'status' as status,
        case when e.item ->> 'attempt' ~ '^[0-9]{1,9}$' then (e.item ->> 'attempt')::integer end as attempt,
        nullif(e.item -> 'result', 'null') as result, e.item ->> 'error' as error, e.item ->> 'reason' as reason
      from jsonb_array_elements(p_results) with ordinality as e(item, n)
      where e.n <> all (v_done)
      order by e.n
    loop
      v_others := v_others || jsonb_build_object(
        v_one.n,
        case
          when v_one.status in ('completed', 'failed') then fleet.finish_attempt(
            p_device_id, v_one.id, v_one.attempt, v_one.status, v_one.result, v_one.error, v_one.reason, p_now
          )
          else '{"accepted": false, "reason": "status_invalid"}'
        end
      );
    end loop;
  end if;

  return (
    select coalesce(
      jsonb_agg(
        jsonb_build_object('command_id', e.item -> 'command_id')
          || coalesce(v_others -> e.n::text, '{"accepted": true, "status": "completed"}')
        order by e.n
      ),
      '[]'
    )
    from jsonb_array_elements(p_results) with ordinality as e(item, n)
  );
end;
$$;

comment on function fleet.finish_each(bigint, jsonb, timestamptz) is
  'Finish what a device says of several attempts, each by itself. Raises results_invalid (PT422).';
revoke all on function fleet.finish_each(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.finish_commands(p_results jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.finish_each(fleet.require_device(), p_results, p_now);
end;
$$;

comment on function fleet.finish_commands(jsonb, timestamptz) is
  'See public.finish_commands. Definer: a device may not write the table but through this.';
revoke all on function fleet.finish_commands(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.finish_commands(jsonb, timestamptz) to authenticated, service_role;

create or replace function public.finish_commands(p_results jsonb)
returns jsonb
language sql
volatile
return fleet.finish_commands(p_results, clock_timestamp());

comment on function public.finish_commands(jsonb) is
  'A device says how several attempts ended: a list of {command_id, attempt, status, result, error, reason}, 100 at most. Answers a list in '
  'the same order: each is {command_id} with what finish_command answers; one that is refused keeps none of the others from being '
  'accepted, also where its status is no status (status_invalid). Raises results_invalid (PT422) or not_a_device (PT403).';
revoke all on function public.finish_commands(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.finish_commands(jsonb) to authenticated, service_role;

create or replace function fleet.work(p_finished jsonb, p_limit integer, p_journal uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_finished jsonb := '[]';
  v_commands jsonb;
begin
  if p_finished is distinct from '[]' then
    v_finished := fleet.finish_each(v_device_id, p_finished, p_now);
  end if;
  if p_limit > 0 then
    select jsonb_agg(to_jsonb(c)) into v_commands from fleet.claim_commands(p_limit, p_journal, p_now) as c;
  else
    perform fleet.touch_device(v_device_id, p_now);
  end if;
  return jsonb_build_object('finished', v_finished, 'commands', coalesce(v_commands, '[]'));
end;
$$;

comment on function fleet.work(jsonb, integer, uuid, timestamptz) is
  'See public.work. Definer: a device may not write the table but through this.';
revoke all on function fleet.work(jsonb, integer, uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.work(jsonb, integer, uuid, timestamptz) to authenticated, service_role;

create or replace function public.work(p_finished jsonb default '[]', p_limit integer default 10, p_journal uuid default null)
returns jsonb
language sql
volatile
return fleet.work(p_finished, p_limit, p_journal, clock_timestamp());

comment on function public.work(jsonb, integer, uuid) is
  'A device says how attempts ended, and takes its next commands, in one call. {finished, commands}: finished is what finish_commands '
  'answers, commands what claim_commands does; with p_limit 0 none are taken. Raises results_invalid (PT422) or not_a_device (PT403).';
revoke all on function public.work(jsonb, integer, uuid) from public, anon, authenticated, service_role;
grant execute on function public.work(jsonb, integer, uuid) to authenticated, service_role;
