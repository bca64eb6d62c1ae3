drop schema market cascade;
drop schema ops cascade;
