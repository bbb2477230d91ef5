
    CROSS JOIN (
        -- Rows that the index does not hold, and those it took in within the last ten seconds.
        SELECT count(*) AS rows, string_agg(o.memory_id::text, ',') AS ids,
               string_agg(o.memory_id::text, ',') FILTER (WHERE o.behind) AS behind
        FROM (
            WITH {epoch}
            (
                SELECT j.memory_id, true AS behind FROM index_jobs j
                WHERE j.tenant = gate.tenant AND j.indexed_epoch < (SELECT epoch FROM searched)
                LIMIT {window} + 1
            )
            UNION ALL
            (
                SELECT j.memory_id, false FROM index_jobs j
                WHERE j.tenant = gate.tenant AND j.indexed_epoch = (SELECT epoch FROM searched)
                  AND j.moved_at > statement_timestamp() - interval '10 seconds'
                LIMIT {window} + 1
            )
        ) AS o
    ) AS open
