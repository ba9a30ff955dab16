-- Trigger functions that tables of every room use.

create or replace function fleet.tg_owner_from_caller()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  return new;
end;
$$;

comment on function fleet.tg_owner_from_caller() is
  'Fill owner_id where the writer named none or the personal owner, which may have to be made. Definer: nobody writes owners.';
revoke all on function fleet.tg_owner_from_caller() from public, anon, authenticated, service_role;

create or replace function fleet.tg_set_updated_at()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_set_updated_at() is 'Stamp updated_at.';
revoke all on function fleet.tg_set_updated_at() from public, anon, authenticated, service_role;
