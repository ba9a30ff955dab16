-- What is logged of templates.

select fleet.keep_audit('public.schedule_templates', p_verbs => '{insert,delete}');
