-- What was trued up, adjusted or taken back after it was accrued, by day of use.
SELECT day, transaction_kind, sum(billed_cost) AS billed, sum(effective_cost) AS effective
  FROM cost.hourly
 WHERE transaction_kind <> 'accrual' AND day >= current_date - INTERVAL '60 days'
 GROUP BY day, transaction_kind
 ORDER BY day, transaction_kind;
