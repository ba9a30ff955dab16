-- Settings as the service role lists them.

drop view if exists public.setting_list;
create view public.setting_list with (security_invoker = true) as
select d.name, fleet.setting(d.name) as value, d.value as default_value, d.description
from fleet.default_settings() as d;

comment on view public.setting_list is
  'Every setting of the engine with its value, its default and what it means. Change one with fleet.set_setting.';
comment on column public.setting_list.value is 'What holds now.';
comment on column public.setting_list.default_value is 'What holds where nobody has set it.';
revoke all on table public.setting_list from public, anon, authenticated, service_role;
grant select on table public.setting_list to service_role;
