-- Note what a tenant is embedded with, unless that is known.
INSERT INTO embedding_profiles (tenant, profile, dimension) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;
