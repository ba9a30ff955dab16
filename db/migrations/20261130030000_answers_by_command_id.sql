-- The answer of a device finds its command by the id under which the MDM has it.

create index mdm_work_uuid_idx on fleet.mdm_work ((md5('pgfleet:command:' || command_id::text)::uuid));
