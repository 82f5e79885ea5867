-- This month so far beside as many days of last month, by tenant.
SELECT tenant_id,
       sum(CASE WHEN day >= date_trunc('month', current_date) THEN charged ELSE 0 END) AS this_month,
       sum(CASE WHEN day < date_trunc('month', current_date)
                 AND extract(day FROM day) <= extract(day FROM current_date) THEN charged ELSE 0 END) AS last_month
  FROM cost.daily
 WHERE tenant_id IS NOT NULL AND day >= date_trunc('month', current_date) - INTERVAL '1 month'
 GROUP BY tenant_id
 ORDER BY tenant_id;
