-- Make the days ahead for request ids, and drop those that are over.
SELECT soma_roll_idempotency($1);
