-- Take the right to fold for this transaction: one worker at a time.
SELECT pg_try_advisory_xact_lock(hashtext('soma_fold_terms'));
