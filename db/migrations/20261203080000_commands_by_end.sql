-- What ended in the last day is counted whenever somebody looks at the fleet. Commands lie in the order in which they were made and end
-- soon after, so a few bytes for each stretch of pages find them, however long the history is, and a finish costs no more than before.
-- depends: 20261203060000_traces

create index device_commands_ended_idx on public.device_commands using brin (executed_at) with (pages_per_range = 32);

-- It is told what ended, so that this is counted once.
drop function if exists fleet.status_problems(jsonb, jsonb, timestamptz);
