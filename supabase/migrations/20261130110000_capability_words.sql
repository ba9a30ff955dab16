-- Generated from db/migrations/20261130110000_capability_words.sql by pgfleet db bundle; edit that file instead.
-- "Settle" is what a run does; an order shows its effect or not.
-- depends: 20261129210000_geo_triggers

update public.device_links
   set capabilities = (capabilities - 'can_settle') || jsonb_build_object('shows_effect', capabilities->'can_settle')
 where capabilities ? 'can_settle';

comment on column public.device_links.capabilities is
  'What it can be asked to do there: supervised, can_locate, needs_pin, shows_effect, …; what is not known is missing.';
