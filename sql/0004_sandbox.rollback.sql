drop schema sandbox cascade;
