CASE WHEN v.mark IS DISTINCT FROM m.vector_mark THEN v.dense END AS dense,
           ''::bytea AS sentences, ''::bytea AS tokens, ''::bytea AS token_ids
