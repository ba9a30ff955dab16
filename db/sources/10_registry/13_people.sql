-- People by their address, and acting as one of them.

create or replace function fleet.user_with_email(p_email text)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid;
begin
  -- Plain Postgres has no accounts: there people are known by what they joined with.
  if to_regclass('auth.users') is not null then
    execute 'select u.id from auth.users as u where lower(u.email) = lower($1) limit 1' into v_user using btrim(p_email);
  end if;
  return coalesce(v_user, (
    select m.user_id from public.owner_members as m where m.email = lower(btrim(p_email)) order by m.created_at limit 1
  ));
end;
$$;

comment on function fleet.user_with_email(text) is 'The id of the person with an address; null where nobody is known by it.';
revoke all on function fleet.user_with_email(text) from public, anon, authenticated, service_role;

create or replace function fleet.act_as(p_person text)
returns uuid
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := coalesce(fleet.try_uuid(p_person), fleet.user_with_email(p_person));
begin
  if v_user is null then
    raise exception 'nobody is known as "%"', fleet.cut_text(p_person, 100)
      using errcode = 'PT404', detail = 'person_not_found',
            hint = 'Name the address of an account, or the id of a person; make one locally with: pgfleet stack user create';
  end if;
  perform set_config(
    'request.jwt.claims',
    jsonb_strip_nulls(jsonb_build_object(
      'sub', v_user, 'role', 'authenticated', 'email', case when fleet.try_uuid(p_person) is null then lower(btrim(p_person)) end
    ))::text,
    true
  );
  perform set_config('role', 'authenticated', true);
  return v_user;
end;
$$;

comment on function fleet.act_as(text) is
  'Go on with the rights of a person, named by address or id, until the transaction ends, as the API does with a token. Whoever may call this '
  'could do anything anyway. Raises person_not_found (PT404).';
revoke all on function fleet.act_as(text) from public, anon, authenticated, service_role;
