-- Note from which tenant on a lost collection's rows are to be queued again; NULL when all are.
UPDATE index_collections SET requeue_from = $2 WHERE name = $1;
