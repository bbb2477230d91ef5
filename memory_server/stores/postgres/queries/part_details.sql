CASE WHEN v.mark IS DISTINCT FROM m.vector_mark THEN v.dense END AS dense,
           CASE WHEN v.mark IS DISTINCT FROM m.vector_mark THEN v.sentences END AS sentences,
           CASE WHEN v.mark IS DISTINCT FROM m.vector_mark THEN v.tokens END AS tokens,
           CASE WHEN v.mark IS DISTINCT FROM m.vector_mark THEN v.token_ids END AS token_ids
