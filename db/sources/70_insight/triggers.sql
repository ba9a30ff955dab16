-- What holds for calendar feeds however a row is written.

select fleet.keep_quota('public.calendar_feeds', 'feeds');
