-- Checks of locations and their policies.

create or replace trigger locations_01_prepare before insert or update on public.locations
  for each row execute function fleet.tg_prepare_location();

create or replace trigger location_policies_01_prepare before insert or update on public.location_policies
  for each row execute function fleet.tg_prepare_location_policy();
