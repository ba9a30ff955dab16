-- How much a function may begin: it says for whom it has room, and every claim takes owners in turn.

create or replace function fleet.room_for(p_room jsonb, p_kind text, p_id text)
returns integer
language sql
immutable
parallel safe
return coalesce((p_room -> (p_kind || 's') ->> p_id)::integer, (p_room ->> p_kind)::integer, 100);

comment on function fleet.room_for(jsonb, text, text) is
  'How much may be begun for an owner (p_kind owner) or through an endpoint or integration (p_kind way), by the room of a claim: {all, owner, '
  'way, owners, ways}, where owner and way hold for all that owners and ways do not name. Without a room it is 100.';
revoke all on function fleet.room_for(jsonb, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.room_in_all(p_room jsonb)
returns integer
language sql
immutable
parallel safe
return least(greatest(coalesce((p_room ->> 'all')::integer, 100), 0), 200);

comment on function fleet.room_in_all(jsonb) is 'How much may be begun in all, by the room of a claim; never more than 200.';
revoke all on function fleet.room_in_all(jsonb) from public, anon, authenticated, service_role;
