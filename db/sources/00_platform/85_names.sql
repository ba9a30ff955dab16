-- People write a name or an id; everything else wants the id.

create or replace function fleet.only_one(p_kind text, p_text text, p_named text[], p_numbered text, p_noun text default null)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(p_named) > 1 then
    raise exception '% "%" is ambiguous: ids %', p_kind, left(p_text, 200), array_to_string(p_named[:20], ', ')
      using errcode = 'PT409',
            detail = replace(p_kind, ' ', '_') || '_ambiguous',
            hint = 'Name the id.';
  end if;

  if coalesce(p_named[1], p_numbered) is null then
    raise exception '% "%" was not found', p_kind, left(p_text, 200)
      using errcode = 'PT404',
            detail = replace(p_kind, ' ', '_') || '_not_found',
            hint = format('List what there is with: pgfleet %s list', coalesce(p_noun, p_kind));
  end if;
  return coalesce(p_named[1], p_numbered);
end;
$$;

comment on function fleet.only_one(text, text, text[], text, text) is
  'What a text means, of the ids that have it as their name and the one that it is: a name wins over an id, but not over another name. '
  'Raises <kind>_ambiguous (PT409) or <kind>_not_found (PT404).';
revoke all on function fleet.only_one(text, text, text[], text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.only_one(text, text, text[], text, text) to authenticated, service_role;
