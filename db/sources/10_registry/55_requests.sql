-- How often devices ask for something, counted by the day.

create or replace function fleet.count_request(p_device_id bigint, p_kind text, p_now timestamptz, p_times integer default 1)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.device_requests as r (device_id, day, owner_id, claims, looks, tokens, checkins, sockets)
  select d.id, (p_now at time zone 'UTC')::date, d.owner_id,
    case p_kind when 'claim' then p_times else 0 end, case p_kind when 'look' then p_times else 0 end,
    case p_kind when 'token' then p_times else 0 end, case p_kind when 'checkin' then p_times else 0 end,
    case p_kind when 'socket' then p_times else 0 end
  from public.devices as d
  where d.id = p_device_id
  on conflict (device_id, day) do update
    set claims = r.claims + excluded.claims, looks = r.looks + excluded.looks, tokens = r.tokens + excluded.tokens,
        checkins = r.checkins + excluded.checkins,
        -- As it says itself, and so within reason.
        sockets = least(r.sockets + excluded.sockets, 1000000), owner_id = excluded.owner_id;
end;
$$;

comment on function fleet.count_request(bigint, text, timestamptz, integer) is
  'Count what a device asked for: claim, look (there was nothing to claim), token, checkin or socket.';
revoke all on function fleet.count_request(bigint, text, timestamptz, integer) from public, anon, authenticated, service_role;
