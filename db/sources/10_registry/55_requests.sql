-- How often devices ask for something, counted by the day.

create or replace function fleet.count_request(p_device_id bigint, p_kind text, p_now timestamptz, p_times integer default 1)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nearly always the row of the day is there, and to change it takes less than to try to insert it.
  for v_turn in 1..2 loop
    update public.device_requests as r
    set claims = r.claims + case p_kind when 'claim' then p_times else 0 end,
        looks = r.looks + case p_kind when 'look' then p_times else 0 end,
        tokens = r.tokens + case p_kind when 'token' then p_times else 0 end,
        checkins = r.checkins + case p_kind when 'checkin' then p_times else 0 end,
        -- As it says itself, and so within reason.
        sockets = least(r.sockets + case p_kind when 'socket' then p_times else 0 end, 1000000)
    where r.device_id = p_device_id and r.day = (p_now at time zone 'UTC')::date;
    exit when found;
    insert into public.device_requests (device_id, day, owner_id)
    select d.id, (p_now at time zone 'UTC')::date, d.owner_id
    from public.devices as d
    where d.id = p_device_id
    on conflict (device_id, day) do nothing;
  end loop;
end;
$$;

comment on function fleet.count_request(bigint, text, timestamptz, integer) is
  'Count what a device asked for: claim, look (there was nothing to claim), token, checkin or socket.';
revoke all on function fleet.count_request(bigint, text, timestamptz, integer) from public, anon, authenticated, service_role;
