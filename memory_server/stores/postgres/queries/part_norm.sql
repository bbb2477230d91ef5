(1.2 * (0.25 + 0.75 * CASE WHEN (SELECT mean FROM corpus) > 0 THEN m.length / (SELECT mean FROM corpus) ELSE 1 END))
