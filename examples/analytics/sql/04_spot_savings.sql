-- How much was spot, week by week, and what that saved beside on-demand prices.
SELECT date_trunc('week', day) AS week, sum(spot_seconds) AS spot_seconds,
       round(sum(spot_seconds) / nullif(sum(spot_seconds) + sum(on_demand_seconds), 0), 6) AS spot_share,
       sum(on_demand_cost) AS on_demand_cost, sum(saving) AS saving
  FROM cost.spot
 WHERE day >= current_date - INTERVAL '60 days'
 GROUP BY date_trunc('week', day)
 ORDER BY week;
