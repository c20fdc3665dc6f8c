"""What commands do with files and adapters, so that `entry/cli/` knows neither."""
