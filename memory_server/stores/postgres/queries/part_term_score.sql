COALESCE((SELECT weights FROM weighed)[{place}] * 2.2 / (1 + {norm} / m.term_counts[array_position(m.term_keys, ({keys})[{place}])]), 0)
