-- What recipients' ids are hashed under where a list must hold a person without naming them.
INSERT INTO installation (name, secret)
VALUES ('privacy_key', sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
