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
            hint = format('List what there is with: select * from %s_list', coalesce(p_noun, p_kind));
  end if;
  return coalesce(p_named[1], p_numbered);
end;
$$;

comment on function fleet.only_one(text, text, text[], text, text) is
  'What a text means, of the ids that have it as their name and the one that it is: a name wins over an id, but not over another name. '
  'Raises <kind>_ambiguous (PT409) or <kind>_not_found (PT404).';
revoke all on function fleet.only_one(text, text, text[], text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.only_one(text, text, text[], text, text) to authenticated, service_role;

create or replace function fleet.unseen_characters()
returns text
language sql
immutable
parallel safe
return '\x01-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f';

comment on function fleet.unseen_characters() is
  'For the brackets of a regular expression: control characters but for tab and line feed, what is not seen at all, and what turns the '
  'direction of text, so that a name reads as another.';
revoke all on function fleet.unseen_characters() from public, anon, authenticated, service_role;

create or replace function fleet.has_unseen(p_text text)
returns boolean
language sql
immutable
parallel safe
return p_text ~ ('[\x09\x0a' || fleet.unseen_characters() || ']');

comment on function fleet.has_unseen(text) is 'Whether a text of one line holds a character that nobody sees, or that makes it look like another.';
revoke all on function fleet.has_unseen(text) from public, anon, authenticated, service_role;
