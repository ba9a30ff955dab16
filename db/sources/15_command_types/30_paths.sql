-- Paths on devices that people write in payloads, and ids of things that payloads name.

create or replace function fleet.path_problems(p_field text, p_path text)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_windows boolean := p_path ~ '^[A-Za-z]:';
  -- Windows takes both strokes for a separator; elsewhere a backslash is a letter, and one too many for us.
  v_parts text[] := regexp_split_to_array(
    case when v_is_windows then regexp_replace(substr(p_path, 3), '^[\\/]', '') else substr(p_path, 2) end,
    case when v_is_windows then '[\\/]' else '/' end
  );
  v_problem text;
begin
  v_problem := case
    when length(p_path) > 1000 then 'is longer than 1000 characters'
    when fleet.has_unseen(p_path) then 'holds a control character, or one that nobody sees'
    when p_path ~ '^[\\/]{2}' then 'is a share or a device, not a folder of the device itself'
    when p_path !~ '^([A-Za-z]:[\\/]|/)' then 'is not absolute'
    when not v_is_windows and strpos(p_path, '\') > 0 then 'holds a backslash'
    when '..' = any (v_parts) or '.' = any (v_parts) then 'holds a step that leads elsewhere'
    when exists (select 1 from unnest(v_parts[1:cardinality(v_parts) - 1]) as u(part) where u.part = '') then 'holds an empty step'
    when exists (select 1 from unnest(v_parts) as u(part) where length(u.part) > 255) then 'holds a name of more than 255 characters'
    when v_is_windows and exists (select 1 from unnest(v_parts) as u(part) where u.part ~ '[:*?"<>|]')
      then 'holds a character that Windows keeps for itself'
    when v_is_windows and exists (select 1 from unnest(v_parts) as u(part) where u.part ~ '[. ]$')
      then 'holds a name that ends with a dot or a blank'
    when v_is_windows and exists (
      select 1 from unnest(v_parts) as u(part) where u.part ~* '^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)([. ].*)?$'
    ) then 'holds a name that Windows keeps for itself'
  end;
  if v_problem is not null then
    return next (p_field, v_problem, 'Write a folder of the device like "C:\Config" or "/etc/app".')::fleet.problem;
  end if;
end;
$$;

comment on function fleet.path_problems(text, text) is
  'One row where a path is not that of a folder on the device itself: relative, on a share, with steps back, streams or reserved names.';
revoke all on function fleet.path_problems(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.reference_problems(p_owner_id uuid, p_command_type text, p_payload jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key record;
begin
  for v_key in
    select 'payload.' || k.key as field, k.value ->> 'ids_of' as named, k.value ->> 'called' as called, p_payload -> k.key as ids
    from public.command_types as t
    cross join jsonb_each(t.payload_keys) as k
    where t.name = p_command_type and coalesce(t.owner_id, p_owner_id) = p_owner_id and k.value ? 'ids_of' and jsonb_typeof(p_payload -> k.key) = 'array'
  loop
    if not fleet.is_id_list(v_key.ids) or v_key.ids = '[]' then
      return next (
        v_key.field, format('%s is not a list of ids', v_key.ids), 'Write whole numbers without quotes, like [1, 2].'
      )::fleet.problem;
    elsif jsonb_array_length(v_key.ids) > fleet.limit_value('artifacts') then
      return query select q.* from fleet.list_problem(v_key.field, 'artifacts', v_key.ids) as q;
    else
      -- Ids are guessable: what belongs to another owner is not there.
      return query execute format(
        'select $1, format(''%%s %%s was not found'', $2, u.id), format(''List what there is with: pgfleet %%s list'', $2)
         from unnest($3) as u(id)
         where not exists (select 1 from public.%I as x where x.id = u.id and x.owner_id = $4)
         order by u.id',
        v_key.named
      )
      using v_key.field, v_key.called, fleet.bigint_array(v_key.ids), p_owner_id;
    end if;
  end loop;
end;
$$;

comment on function fleet.reference_problems(uuid, text, jsonb) is
  'Ids in a payload that name nothing of the owner, by the keys that its command type marks with ids_of.';
revoke all on function fleet.reference_problems(uuid, text, jsonb) from public, anon, authenticated, service_role;
