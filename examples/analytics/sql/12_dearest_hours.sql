-- The hours of the day at which work is dear: cost of a thousand requests by hour, UTC.
SELECT extract(hour FROM hour) AS hour_of_day, sum(requests) AS requests,
       round(sum(effective_cost) * 1000 / nullif(sum(requests), 0), 6) AS cost_per_thousand_requests
  FROM cost.hourly
 WHERE kind = 'work' AND day >= current_date - INTERVAL '30 days'
 GROUP BY extract(hour FROM hour)
 ORDER BY hour_of_day;
