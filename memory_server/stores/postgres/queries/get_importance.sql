-- Read the counts of a namespace's importances that are younger than $3.
SELECT counts FROM importance_counts
WHERE tenant = $1 AND namespace = $2 AND counted_at > clock_timestamp() - $3::interval;
