v.sentences, v.tokens, v.token_ids
