-- What each model cost in the last seven full days beside the seven before.
SELECT model,
       sum(CASE WHEN day >= current_date - INTERVAL '7 days' THEN effective_cost ELSE 0 END) AS last_week,
       sum(CASE WHEN day < current_date - INTERVAL '7 days' THEN effective_cost ELSE 0 END) AS week_before,
       sum(CASE WHEN day >= current_date - INTERVAL '7 days' THEN effective_cost ELSE -effective_cost END) AS change
  FROM cost.daily
 WHERE day >= current_date - INTERVAL '14 days' AND day < current_date
 GROUP BY model
 ORDER BY model NULLS LAST;
