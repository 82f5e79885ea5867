-- What each team's batches cost last month, and what they were charged.
SELECT label_value AS team, sum(effective_cost) AS cost, sum(charged) AS charged, sum(tokens) AS tokens
  FROM cost.labels
 WHERE label_key = 'team'
   AND day >= date_trunc('month', current_date) - INTERVAL '1 month' AND day < date_trunc('month', current_date)
 GROUP BY label_value
 ORDER BY cost DESC, team;
