-- Shares of the work that a function may begin: how much in all, of one owner, and through one endpoint or integration.

create or replace function fleet.share_of(p_shares jsonb, p_kind text, p_id text)
returns integer
language sql
stable
parallel safe
return case
  -- Nothing goes out for an owner that is being moved to another database.
  when p_kind = 'owner' and exists (select 1 from fleet.owner_moves as m where m.owner_id::text = p_id) then 0
  else coalesce((p_shares -> (p_kind || 's') ->> p_id)::integer, (p_shares ->> p_kind)::integer, 100)
end;

comment on function fleet.share_of(jsonb, text, text) is
  'How much may be begun for an owner (p_kind owner) or through an endpoint or integration (p_kind way), by the shares that a claim says: '
  '{all, owner, way, owners, ways}, where owner and way hold for all that owners and ways do not name. Without them it is 100; for an owner that is being moved it is 0.';
revoke all on function fleet.share_of(jsonb, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.share_in_all(p_shares jsonb)
returns integer
language sql
immutable
parallel safe
return least(greatest(coalesce((p_shares ->> 'all')::integer, 100), 0), 200);

comment on function fleet.share_in_all(jsonb) is 'How much may be begun in all, by the shares that a claim says; never more than 200.';
revoke all on function fleet.share_in_all(jsonb) from public, anon, authenticated, service_role;
