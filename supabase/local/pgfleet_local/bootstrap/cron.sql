-- pg_cron with the rights that hosted gives; issue_pg_cron_access does its part at the creation.

create extension if not exists pg_cron;

grant all on all functions in schema cron to postgres with grant option;
