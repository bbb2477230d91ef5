(SELECT count(*) FROM replaced) + (SELECT count(*) FROM kept) + (SELECT count(*) FROM uncounted)
        + (SELECT count(*) FROM still_embedded)
