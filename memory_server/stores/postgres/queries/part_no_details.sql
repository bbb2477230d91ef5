''::bytea AS sentences, ''::bytea AS tokens, ''::bytea AS token_ids
