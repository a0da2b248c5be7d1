"""Operations on services: clean the settings, check the configuration, record upstream health."""
