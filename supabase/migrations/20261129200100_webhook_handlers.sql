-- Generated from db/migrations/20261129200100_webhook_handlers.sql by pgfleet db bundle; edit that file instead.
-- Who takes what another system tells on its secret address: each kind of integration names its function here, so that the
-- room of integrations need not know the rooms above it.
-- depends: 20261129200000_audit_arguments

create table fleet.webhook_handlers (
  integration_type text primary key,
  function text not null,
  constraint webhook_handlers_function_is_ours check (function ~ '^fleet\.[a-z_]{1,60}$')
);

comment on table fleet.webhook_handlers is
  'Which function takes the webhooks of integrations of a type: (integration, body, now) to {status, is_new}. Filled by the sources.';
comment on column fleet.webhook_handlers.function is 'The name of the function, such as fleet.take_simplemdm_hint.';

alter table fleet.webhook_handlers enable row level security;

revoke all on table fleet.webhook_handlers from public, anon, authenticated, service_role;
