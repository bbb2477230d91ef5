-- Find the next tenant with a changelog, by name.
SELECT tenant FROM changelog WHERE tenant > $1 ORDER BY tenant LIMIT 1;
