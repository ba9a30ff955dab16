-- Counting occurrences without listing them to the caller.

create or replace function fleet.count_occurrences(
  p_recurrence jsonb,
  p_from timestamptz,
  p_to timestamptz,
  p_limit bigint default null
)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_from  timestamptz := greatest(p_from, v_start);
  v_to    timestamptz := least(p_to, (p_recurrence ->> 'end')::timestamptz + interval '1 microsecond');
  v_width interval := interval '6 hours';
  v_every bigint := (p_recurrence ->> 'interval_seconds')::bigint;
  v_count bigint := 0::bigint;
begin
  if p_recurrence ->> 'kind' = 'interval' and isfinite(v_from) and isfinite(v_to) and v_from < v_to then
    -- Occurrences before the end less those before the beginning.
    return least(
      (
        ceil(extract(epoch from v_to - v_start) / v_every)
        - ceil(extract(epoch from v_from - v_start) / v_every)
      )::bigint,
      p_limit
    );
  elsif p_limit is null or p_recurrence ->> 'kind' = 'once' then
    return least((select count(*) from fleet.occurrences(p_recurrence, p_from, p_to)), p_limit);
  end if;

  -- In growing pieces, so that a small limit never lists a long window.
  while v_count < p_limit and v_from < v_to loop
    v_count := v_count + (
      select count(*) from fleet.occurrences(p_recurrence, v_from, least(v_to, v_from + v_width))
    );
    v_from := v_from + v_width;
    v_width := least(v_width * 2, interval '90000 hours');
  end loop;
  return least(v_count, p_limit);
end;
$$;

comment on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint) is
  'How many occurrences a compiled recurrence has in [p_from, p_to), counting no further than p_limit.';
revoke all on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint)
  to authenticated, service_role;
