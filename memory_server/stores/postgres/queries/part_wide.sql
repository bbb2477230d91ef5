LEFT JOIN LATERAL (
        SELECT {columns}, m.length, array_send(m.term_keys) AS term_keys, array_send(m.term_counts) AS term_counts
        WHERE m.mark IS DISTINCT FROM m.row_mark
    ) AS wide ON true
