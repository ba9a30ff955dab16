-- Where calls may go: addresses that are well formed, and no way into the networks around the functions. What a name
-- stands for is known only when it is used, so the function that delivers looks at it again.

create or replace function fleet.is_public_address(p_address inet)
returns boolean
language sql
immutable
parallel safe
return p_address is not null and not (
  p_address <<= any (
    '{0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,127.0.0.0/8,169.254.0.0/16,172.16.0.0/12,192.0.0.0/24,192.0.2.0/24,192.88.99.0/24,
      192.168.0.0/16,198.18.0.0/15,198.51.100.0/24,203.0.113.0/24,224.0.0.0/3}'::inet[]
  )
  -- Of IPv6 only what is given out to the public, without the forms that carry an IPv4 address inside.
  or (family(p_address) = 6 and not p_address <<= '2000::/3'::inet)
  or p_address <<= any ('{2001::/23,2001:db8::/32,2002::/16,3fff::/20}'::inet[])
);

comment on function fleet.is_public_address(inet) is
  'Whether an address is open to everybody: not private, loopback, link-local, multicast or reserved.';
revoke all on function fleet.is_public_address(inet) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_url_problem(p_url text, p_allow_private boolean)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Scheme, host (a name, IPv4, or IPv6 in brackets), port, and the rest.
  v_parts text[] := regexp_match(
    p_url, '^(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:[/?][^\s#[:cntrl:]]*)?$', 'i'
  );
  v_host text := lower(rtrim(v_parts[2], '.'));
  v_address inet := fleet.try_inet(btrim(v_host, '[]'));
begin
  if v_parts is null or length(p_url) > fleet.limit_value('address') or v_host = '' or coalesce(v_parts[3], '443')::integer not between 1 and 65535 then
    return 'is not an address like https://example.com/hooks, without user, password and #';
  elsif p_allow_private then
    return null;
  elsif lower(v_parts[1]) <> 'https' then
    return 'must begin with https://';
  elsif v_address is not null then
    -- A leading zero means octal to some and decimal to others.
    return case
      when not fleet.is_public_address(v_address) then 'is a private address'
      when family(v_address) = 4 and v_host ~ '(^|\.)0[0-9]' then 'is an address with leading zeros'
    end;
  -- Resolvers take 127.1, 0x7f000001 and 2130706433 for addresses too: the last part of a name has a letter, and no 0x.
  elsif v_host !~ '\.[a-z][a-z0-9-]*$' or v_host ~ '\.0x[0-9a-f]*$' then
    return 'must name a host on the internet';
  elsif v_host ~ '(^|\.)(localhost|localdomain|local|internal|intranet|lan|home|corp|arpa|test|invalid|onion)$' then
    return 'is a name of a private network';
  end if;
  return null;
end;
$$;

comment on function fleet.webhook_url_problem(text, boolean) is
  'What is wrong with the address of a webhook, as far as its text can tell; null where nothing is.';
revoke all on function fleet.webhook_url_problem(text, boolean) from public, anon, authenticated, service_role;
