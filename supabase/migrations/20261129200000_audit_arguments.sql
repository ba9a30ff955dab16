-- Generated from db/migrations/20261129200000_audit_arguments.sql by pgfleet db bundle; edit that file instead.
-- What the log leaves out of a row is an argument of each trigger by now; these two knew tables by name. The sources that
-- follow bring them back with other arguments.
-- depends: 20261129110000_one_way_to_write_schedules

drop function if exists fleet.audited(text, jsonb);
drop function if exists fleet.audit_row_id(text, jsonb);
